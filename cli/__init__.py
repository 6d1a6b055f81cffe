"""Warren's command line: composes the sub-commands that each role brings."""
