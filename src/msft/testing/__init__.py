"""What a package with a method of its own tests it with: a fake engine, and the conformance suite."""
