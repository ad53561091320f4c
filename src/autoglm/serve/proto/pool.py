"""The descriptor pool that our generated messages live in.

It is not protobuf's process-wide pool: tritonclient registers the names of `package inference`
there, and a client in the same process may bring another generation of `autoglm.v1`.
"""

from __future__ import annotations

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
