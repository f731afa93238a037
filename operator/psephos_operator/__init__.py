"""The Kubernetes operator: turns a `VotingSession` into what runs it. Nothing else imports this package.

`controller` runs the loop, `reconcile` makes one pass over a session, `builders` defines what a session needs,
`kube` is the Kubernetes API, `admission` reviews sessions before they are stored. The resource's definition is
generated from `psephos.domain.session`.
"""
