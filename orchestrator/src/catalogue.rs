//! The connectors that a project may use.

use connectors::catalogue::{DESTINATIONS, DestinationConnector, SOURCES, SourceConnector};

/// Sources and destinations by name.
#[derive(Debug, Clone, Copy)]
pub struct Catalogue {
    /// Every kind of source.
    pub sources: &'static [&'static SourceConnector],
    /// Every kind of destination.
    pub destinations: &'static [&'static DestinationConnector],
}

impl Catalogue {
    /// What this build of levin can talk to.
    pub fn levin() -> Self {
        Self { sources: SOURCES, destinations: DESTINATIONS }
    }

    /// The source connector of that name.
    pub fn source(&self, name: &str) -> Option<&'static SourceConnector> {
        self.sources.iter().copied().find(|connector| connector.name == name)
    }

    /// The destination connector of that name.
    pub fn destination(&self, name: &str) -> Option<&'static DestinationConnector> {
        self.destinations.iter().copied().find(|connector| connector.name == name)
    }
}
