"""The Kubernetes operator: turns a `VotingSession` into what runs it. Nothing else imports this package.

So far it holds the resource's definition only, which is built from the model in `psephos.session`.
"""
