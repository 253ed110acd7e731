"""Proof that the store equals Central: compare, find what differs, repair it.

The rules of following avoid being wrong; this finds what they cannot notice: a change without an
event, a Central that was restored in place, a bit that fell over. docs/verification.md tells how.

    comparison.py   which buckets differ, and which rows (pure)
    findings.py     what was found, for the status (pure)
    verifier.py     asks Central, waits, repairs
    lap.py          walks the pages of a Central without digests
"""
