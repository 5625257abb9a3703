//! Looks whether sources and destinations of a project answer, changing nothing.

use futures::future::join_all;

use crate::error::Error;
use crate::project::Project;

/// What is wrong with a source or destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// `source wh`, `destination crm`.
    pub subject: String,
    /// What is wrong.
    pub error: Error,
}

/// Asks every destination whether it can be used; all at once, so that one that does not answer
/// holds up none of the others. Troubles come in the order of the project.
pub async fn online(project: &Project) -> Vec<Trouble> {
    let destinations = project.destinations.iter().map(|spec| async move {
        let error = Error::from(spec.destination.check(None).await.err()?);
        Some(Trouble { subject: format!("destination {}", spec.slug), error })
    });
    join_all(destinations).await.into_iter().flatten().collect()
}
