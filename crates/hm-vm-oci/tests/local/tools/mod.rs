//! Images that other people's tools make are read; those that are made here are taken by them.

mod engine;
mod made;
mod podman;
mod process;
mod taken;

/// A build of several layers, two of them alike and one empty but for a directory.
const DOCKERFILE: &str = "FROM scratch\nCOPY tool /bin/tool\nCOPY one /one\nENV A=b PATH=/bin\nCOPY two /two\nCOPY one /one\n\
                          USER 5:6\nWORKDIR /work\nENTRYPOINT [\"/bin/tool\"]\nCMD [\"x\"]\n";
