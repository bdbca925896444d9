-- session.db, version 2. Run inside one transaction together with the row of `session` (nca_edge/session/database.py).
-- Truth values are 0 or 1; columns that end in _json hold JSON text. No STRICT tables: they need SQLite 3.37.
-- Picture files have no column: their names follow from (field, cell), so that a row can never point outside its folder.
-- Times are UTC, for people to read; nothing is ordered or identified by them.
-- What a person may change: state and the slide's facts in session, voided in field, the rows of verdict. Each change stands in
-- audit, in the same transaction; rows of audit are never changed. An older version is brought here by session/migration.py.

PRAGMA application_id = 1313030469;  -- "NCAE": tells a session from any other SQLite file
PRAGMA user_version = 2;

CREATE TABLE session (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    id             TEXT NOT NULL,             -- random, 32 hexadecimal digits
    created_at     TEXT NOT NULL,
    software       TEXT NOT NULL,             -- version of nca-edge that created it
    bundle         TEXT NOT NULL,
    bundle_sha256  TEXT NOT NULL,
    backend        TEXT NOT NULL,
    precision      TEXT NOT NULL,
    threads        INTEGER NOT NULL,
    um_per_px      REAL,                      -- as given by the user; NULL: estimated for each field
    classes_json   TEXT NOT NULL,
    groups_json    TEXT NOT NULL,
    model_json     TEXT NOT NULL,
    state          TEXT NOT NULL DEFAULT 'OPEN',      -- OPEN, COUNTING, REVIEW, SIGNED, AMENDED or ABANDONED
    specimen       TEXT NOT NULL DEFAULT '',
    slide          TEXT NOT NULL DEFAULT '',
    operator       TEXT NOT NULL DEFAULT '',
    target         INTEGER,                           -- leukocytes to count; NULL: no limit
    calibration_json TEXT NOT NULL DEFAULT '{}'       -- of the microscope, as `nca-edge calibrate` stored it
);

CREATE TABLE field (
    number         INTEGER PRIMARY KEY,       -- running number from 1, in order of commit
    name           TEXT NOT NULL UNIQUE,      -- a field is committed once, so that no cell is counted twice
    committed_at   TEXT NOT NULL,
    accepted       INTEGER NOT NULL CHECK (accepted IN (0, 1)),
    failed         INTEGER NOT NULL CHECK (failed IN (0, 1)),
    reasons_json   TEXT NOT NULL,
    focus          REAL NOT NULL,
    um_per_px      REAL,
    scale_source   TEXT,
    voided         INTEGER NOT NULL DEFAULT 0         -- 1: taken back by a person; none of its cells is counted
);

CREATE TABLE cell (
    field              INTEGER NOT NULL REFERENCES field (number),
    cell               INTEGER NOT NULL,      -- number within its field, from 1
    x                  INTEGER NOT NULL,      -- box, px of the field
    y                  INTEGER NOT NULL,
    w                  INTEGER NOT NULL,
    h                  INTEGER NOT NULL,
    border             INTEGER NOT NULL CHECK (border IN (0, 1)),
    score              REAL NOT NULL,
    model_label        TEXT NOT NULL,         -- what the model said, for ever; what a person says stands in verdict
    confidence         REAL NOT NULL,
    unsure             INTEGER NOT NULL CHECK (unsure IN (0, 1)),
    counted            INTEGER NOT NULL CHECK (counted IN (0, 1)),
    probabilities_json TEXT NOT NULL,
    explained_label    TEXT NOT NULL,
    logit              REAL NOT NULL,
    bias_share         REAL NOT NULL,
    epsilon_share      REAL NOT NULL,
    top_channels_json  TEXT NOT NULL,
    measures_json      TEXT NOT NULL DEFAULT '{}',    -- further measures of the cell, name -> number, truth value or text
    pictures_sha256    TEXT,                  -- of crop, mask and overlay one after the other; NULL: they were missing
    maps_png           BLOB,                  -- grey PNG, the maps of the first channels one under the other; last column:
                                              -- SQLite does not read it from disk where it is not asked for
    PRIMARY KEY (field, cell)
);

CREATE TABLE verdict (
    field          INTEGER NOT NULL,
    cell           INTEGER NOT NULL,
    label          TEXT NOT NULL,             -- what a person said, the model's own word where it was accepted
    given_by       TEXT NOT NULL,
    PRIMARY KEY (field, cell),
    FOREIGN KEY (field, cell) REFERENCES cell (field, cell)
);

CREATE TABLE audit (
    sequence       INTEGER PRIMARY KEY,       -- from 1, without a gap
    at             TEXT NOT NULL,
    actor          TEXT NOT NULL,             -- a person's name, or nca-edge
    action         TEXT NOT NULL,
    payload_json   TEXT NOT NULL,
    previous       TEXT NOT NULL,             -- hash of the row before; 64 zeros in the first
    hash           TEXT NOT NULL              -- see session/audit.py
);

CREATE TRIGGER audit_keeps BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_grows BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
