"""Checks that go on for ever, and what machines are told of them."""
