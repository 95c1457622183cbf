"""Everything the tests share: environment, the toy factory, real images where they exist."""
