"""The mail side of the e-mail example: nothing here knows about pools.

``outbox`` keeps letters until they are delivered, ``server`` is an SMTP server in a process of its
own, ``timeline`` draws what happened when.
"""
