"""How a plan is carried out: by row and by range, from evidence to an outcome that is proven."""
