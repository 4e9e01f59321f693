POLYNOMIALS: dict[str, str] = {}
