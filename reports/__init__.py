"""Results -> statistics, tables, figures and one page. Reads run folders, imports no other stage."""
