//! The connectors that a project may use.

use connectors::catalogue::{
    CHANNELS, ChannelConnector, DESTINATIONS, DestinationConnector, HOOKS, HookConnector, SOURCES,
    SourceConnector,
};

/// Sources, destinations, channels and hooks by name.
#[derive(Debug, Clone, Copy)]
pub struct Catalogue {
    /// Every kind of source.
    pub sources: &'static [&'static SourceConnector],
    /// Every kind of destination.
    pub destinations: &'static [&'static DestinationConnector],
    /// Every kind of channel.
    pub channels: &'static [&'static ChannelConnector],
    /// Every kind of hook.
    pub hooks: &'static [&'static HookConnector],
}

impl Catalogue {
    /// What this build of levin can talk to.
    pub fn levin() -> Self {
        Self { sources: SOURCES, destinations: DESTINATIONS, channels: CHANNELS, hooks: HOOKS }
    }

    /// The source connector of that name.
    pub fn source(&self, name: &str) -> Option<&'static SourceConnector> {
        self.sources.iter().copied().find(|connector| connector.name == name)
    }

    /// The destination connector of that name.
    pub fn destination(&self, name: &str) -> Option<&'static DestinationConnector> {
        self.destinations.iter().copied().find(|connector| connector.name == name)
    }

    /// The channel connector of that name.
    pub fn channel(&self, name: &str) -> Option<&'static ChannelConnector> {
        self.channels.iter().copied().find(|connector| connector.name == name)
    }

    /// The hook connector of that name.
    pub fn hook(&self, name: &str) -> Option<&'static HookConnector> {
        self.hooks.iter().copied().find(|connector| connector.name == name)
    }
}
