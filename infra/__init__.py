"""The ground floor: configuration, storage, artifacts, the cluster, progress, seeds.

Every other package stands on this one, and it knows none of them. Two rooms hide a fact from the
rest of the tree: only :mod:`infra.cluster` knows whether Ray is local or remote, and only
:mod:`infra.storage` knows ``file://`` from ``s3://``.
"""
