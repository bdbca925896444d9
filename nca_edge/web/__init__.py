"""The page at the microscope: live view, differential, gallery, review, signature. `nca-edge serve` runs it.

``guard`` stands before every route; ``app`` lists the routes, ``pages`` answers those that show something, ``changes`` those
that change something; ``desk`` is the one way to the session, ``watch`` the one to the microscope; ``serving`` binds address
and port, and begins and ends it all.
"""
