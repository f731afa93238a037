"""The Kubernetes operator: turns a `VotingSession` into what runs it. Nothing else imports this package.

`controller` runs the loop, `reconcile` makes one pass over a session, `builders` says what a session needs, `kube`
is the Kubernetes API, `admission` reviews sessions before they are stored. The resource's definition is made from
`psephos.domain.session`.
"""
