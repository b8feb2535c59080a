"""Who may speak to the server, as what, how often and over what: tokens, scopes, limits, certificates, audit."""
