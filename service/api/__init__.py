"""
Requests and answers, whatever carries them: checks a body, asks the model in service, answers.

May be imported by `service.http` and `service.app`.
"""
