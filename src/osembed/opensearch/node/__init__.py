"""The embedded node: a real OpenSearch on this machine without Docker, reachable only locally. Its data is kept between runs."""

from osembed.opensearch.node.install import CLUSTER_NAME, VERSION
from osembed.opensearch.node.run import Status, ensure, logs, start, status, stop

__all__ = ["CLUSTER_NAME", "VERSION", "Status", "ensure", "logs", "start", "status", "stop"]
