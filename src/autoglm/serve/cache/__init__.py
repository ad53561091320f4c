"""Answers kept by what was asked: one run for many who ask the same at once.

The gateway does `answer = await cache.answer(key_of(info.digest, request), run)` and sets
`answer.id` itself; a request that `key_of` gives None for is run as if there were no cache.
"""

from autoglm.serve.cache.answers import Cache, CacheOptions, CacheStats
from autoglm.serve.cache.key import key_of

__all__ = ["Cache", "CacheOptions", "CacheStats", "key_of"]
