"""What a person runs now and then: check the set-up, submit jobs, transcribe on the spot, pull models,
replay what failed.

In: the settings and what was asked for. Out: values for the command line to show, or ServiceError / JobError. It may
block on everything that the daemon blocks on, since that is what it looks at. Each module is one command's logic.
"""
