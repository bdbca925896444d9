"""Facts about boards: one TOML file each, read by ``nca_edge.profiles``. Data only, no code."""
