"""The search index: which products have which words, barcodes and attributes.

`words` says what a word is, `terms` what of a product is indexed, `postings` which products have a
term. A `shard` is the index of some thousand neighbouring products, the `index` is a row of shards.
"""
