//! Running one command: request, output, report.
