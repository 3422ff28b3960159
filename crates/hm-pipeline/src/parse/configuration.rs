//! The user's configuration file.

use super::diagnostics::Diagnostics;
use super::forms::Line;
use super::model::RemoteCacheTable;
use super::quantities::Time;
use super::read::SIZE_LIMIT;
use super::reader::Reader;
use super::registries::{HostFile, Mirror, RegistryName, Repository, remote_cache};
use super::table::{FromNode, table};
use super::toml;
use super::unions::TextOr;
use super::values::{As, Bool, Map, OneOrMany};
use crate::configuration::{Configuration, RegistryRule};

table! {
    /// The configuration of hmvm.
    ConfigurationTable {
        /// Name of the backend, where neither the command line nor the pipeline has one.
        backend: Option<As<Line>>,
        /// A cache shared with other machines.
        remote_cache: Option<TextOr<As<Repository>, RemoteCacheTable>>,
        /// Images of registries.
        images: Option<ImagesTable>,
        /// Registries that are not as others, by host and port.
        registries: Option<Map<RegistryName, RegistryTable>>,
    }

    /// Images of registries.
    ImagesTable {
        /// How old what is known of a tag may be before its registry is asked again. Default: for ever.
        max_age: Option<As<Time>>,
    }

    /// A registry.
    RegistryTable {
        /// Hosts that are asked first for what is read, each with a path if its repositories begin there.
        mirrors: Option<OneOrMany<As<Mirror>>>,
        /// Talk to it without TLS. Default: false, but for this machine itself.
        plain_http: Option<Bool>,
        /// Files with certificates to trust for it, beside those of the system.
        ca: Option<OneOrMany<As<HostFile>>>,
    }
}

/// Reads a user's configuration. Nothing on the host is looked at.
///
/// # Errors
///
/// All problems of the text, in its order.
pub fn read_configuration(text: &str) -> Result<Configuration, Diagnostics> {
    if text.len() > SIZE_LIMIT {
        return Err(Diagnostics::whole(
            format!("the file is larger than {} MiB", SIZE_LIMIT >> 20),
            "a configuration is a few lines",
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader::new(text);
    let table = toml::parse(text, &mut reader)
        .and_then(|root| ConfigurationTable::from_node(&root, &mut reader));
    match table {
        Some(table) if reader.is_clean() => Ok(build(table)),
        _ => Err(reader.into_diagnostics()),
    }
}

fn build(table: ConfigurationTable) -> Configuration {
    let registries = table.registries.map_or_else(Vec::new, |map| map.entries);
    Configuration {
        backend: table.backend.map(|name| name.value),
        remote_cache: table.remote_cache.as_ref().map(remote_cache),
        image_max_age: table
            .images
            .and_then(|images| images.max_age)
            .map(|time| time.value),
        registries: registries
            .into_iter()
            .map(|(name, table)| (name.text, registry(table)))
            .collect(),
    }
}

fn registry(table: RegistryTable) -> RegistryRule {
    RegistryRule {
        mirrors: table.mirrors.map_or_else(Vec::new, |OneOrMany(hosts)| {
            hosts.into_iter().map(|host| host.value).collect()
        }),
        plain_http: table.plain_http.is_some_and(|value| value.0),
        roots: table.ca.map_or_else(Vec::new, |OneOrMany(files)| {
            files.into_iter().map(|file| file.value).collect()
        }),
    }
}
