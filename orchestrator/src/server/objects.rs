//! What all objects of a project have in common in the API: lists, pages, moments.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::fault::Fault;
use super::request::{Page, Query};
use crate::config::Kind;
use crate::project::{ModelSpec, Written};
use crate::store::Times;

/// The number of the only workspace: a project is one.
pub(super) const WORKSPACE: i64 = 1;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct List<T> {
    /// The objects of this page.
    pub(super) data: Vec<T>,
    /// Whether there are more after them.
    pub(super) has_more: bool,
}

/// Which objects are shown, and in which order.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes what `Wanted` reads")]
pub(super) struct ObjectQuery {
    /// Only the object of this name, which is its slug.
    name: Option<String>,
    /// Only the object of this slug.
    slug: Option<String>,
    /// How many objects are passed over.
    #[param(minimum = 0, default = 0)]
    offset: Option<u64>,
    /// The most objects that are shown.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// The order.
    #[param(inline, default = "id")]
    #[param(rename = "orderBy")]
    order_by: Option<ObjectOrder>,
}

/// An order of objects.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what `Wanted` reads")]
pub(super) enum ObjectOrder {
    Id,
    Name,
    Slug,
    CreatedAt,
    UpdatedAt,
}

/// Which objects are wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    slug: Option<String>,
    /// No object can be meant: two names are asked for, or a tag.
    nothing: bool,
    page: Page,
    order: &'static str,
}

impl Wanted {
    pub(super) fn read(query: &mut Query) -> Self {
        let (name, slug) = (query.text("name").map(str::to_owned), query.text("slug").map(str::to_owned));
        let nothing = name.is_some() && slug.is_some() && name != slug;
        let order = query.word("orderBy", &["id", "name", "slug", "createdAt", "updatedAt"]).unwrap_or("id");
        Self { slug: slug.or(name), nothing, page: query.page(), order }
    }

    /// Nothing can be meant.
    pub(super) fn nothing(&mut self) {
        self.nothing = true;
    }

    /// These objects of a kind, page by page. `of` gives the number and the slug of each.
    pub(super) fn of<T: Clone>(
        &self,
        api: &Api,
        kind: Kind,
        all: impl Iterator<Item = T>,
        of: impl Fn(&T) -> (i64, &str),
    ) -> (Vec<T>, bool) {
        if self.nothing {
            return (Vec::new(), false);
        }
        let mut found: Vec<T> =
            all.filter(|object| self.slug.as_ref().is_none_or(|slug| slug == of(object).1)).collect();
        let times = api.service.times();
        let time = |id: i64| times.get(&(kind.name().to_owned(), id));
        match self.order {
            "id" => found.sort_by_key(|object| of(object).0),
            "createdAt" => found.sort_by_cached_key(|object| {
                let id = of(object).0;
                (time(id).map(|times| times.created_at.clone()), id)
            }),
            "updatedAt" => found.sort_by_cached_key(|object| {
                let id = of(object).0;
                (time(id).map(|times| times.updated_at.clone()), id)
            }),
            _ => found.sort_by(|a, b| of(a).1.cmp(of(b).1)),
        }
        self.page.of(found)
    }
}

impl Api {
    /// Since when an object is there, and as it is.
    pub(super) fn times(&self, kind: Kind, id: i64) -> Times {
        let times = self.service.times();
        times.get(&(kind.name().to_owned(), id)).cloned().unwrap_or_else(|| {
            let now = crate::store::text_of_now();
            Times { created_at: now.clone(), updated_at: now }
        })
    }

    /// The keys of an object's file as they are written, without these.
    pub(super) fn written(&self, kind: Kind, id: i64, but: &[&str]) -> Map<String, Value> {
        let project = self.service.project();
        let mut keys = project.written(kind, id).map(Written::keys).unwrap_or_default();
        keys.retain(|key, _| !but.contains(&key.as_str()));
        keys
    }

    /// The columns of a model's primary key as they are written; those that dbt knows where nobody wrote them.
    pub(super) fn primary_key(&self, model: &ModelSpec) -> Vec<String> {
        match self.written(Kind::Model, model.id, &[]).get("primary_key") {
            Some(Value::String(column)) => vec![column.clone()],
            Some(Value::Array(columns)) => {
                columns.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            _ => model.primary_key.clone(),
        }
    }
}

/// The object of that number.
pub(super) fn found<'a, T>(
    what: &str,
    id: i64,
    mut all: impl Iterator<Item = &'a T>,
    of: impl Fn(&T) -> i64,
) -> Result<&'a T, Fault> {
    all.find(|object| of(object) == id).ok_or_else(|| Fault::not_found(what, &id.to_string()))
}
