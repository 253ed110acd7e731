"""The world: Central over HTTP, the files, the clock. An edge performs and reports what happened;
`core` decides what that means.
"""
