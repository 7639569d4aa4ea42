"""States move forward by observations; forecasts only read them."""
