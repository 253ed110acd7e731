"""Proof that the store equals Central: compare, find what differs, repair it.

The rules of following avoid being wrong; this finds what they cannot notice: a change without an
event, a Central that was restored in place, a bit that fell over. docs/verification.md tells how.

    verifier.py     when a run is due, and what a run does
    schedule.py     when the next run is due (pure)
    digests.py      compares by digests, bucket by bucket
    comparison.py   which buckets differ, and which rows (pure)
    lap.py          one walk through the pages of a Central without digests (pure)
    judge.py        reads products by themselves, and repairs those whose difference stands
    removals.py     how many products repairs may remove (pure)
    changes.py      which products changed lately, and which change while they are judged
    following.py    waits for the feed
    patience.py     asks Central, and waits for its limits
    findings.py     what was found, for the status (pure)
"""
