"""What people look at: boards, alert rules, the console and the incident report, as code.

Stands above `signals` and below `deploy`: it may read what the pipeline says, and nothing in the pipeline knows of it.
"""
