"""How data/demo was built from MakeHuman."""
