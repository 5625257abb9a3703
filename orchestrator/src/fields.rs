//! Whether a destination's object has the fields that a sync fills.

use connectors::destination::{DeliverySpec, Destination};

use crate::error::{Error, ErrorCode};
use crate::suggestion;

/// What is missing, all at once; `None` when nothing is, or when the destination cannot tell.
pub async fn missing(destination: &dyn Destination, spec: &DeliverySpec) -> Option<Error> {
    let object = spec.object.as_deref()?;
    let there = destination.fields(object).await.ok()??;
    let there: Vec<&str> = there.iter().map(|field| field.name.as_str()).collect();
    let mut missing: Vec<&str> = Vec::new();
    for field in spec.identity.fields().iter().chain(spec.fields.fields()) {
        let name = field.name().as_str();
        if !there.contains(&name) && !missing.contains(&name) {
            missing.push(name);
        }
    }
    let first = missing.first()?;
    let hint = suggestion::hint(first, &there, "fields");
    let message = format!("`{object}` has no field {}", suggestion::listed(&missing));
    let code = ErrorCode::DestinationFieldMissing;
    Some(Error::new(code, message).hint(format!("{hint}; {}", code.hint())))
}
