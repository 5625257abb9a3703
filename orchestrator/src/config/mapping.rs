//! The mappings of a sync: from a list as written to a tree of values.

use std::collections::HashMap;

use super::file::MappingConfig;
use super::load::ProjectFile;
use super::resolve::Resolver;
use super::yaml::Step;
use crate::project::{Mapping, MappingValue, Mappings};
use crate::suggestion;

impl Resolver<'_> {
    /// The mappings of a sync; those that cannot be used are left out, each with a finding.
    pub(super) fn mappings(&mut self, file: &ProjectFile, written: Option<&[MappingConfig]>) -> Mappings {
        match written {
            None => Mappings::AllColumns,
            Some(written) => {
                let path = vec![Step::Key("mappings".to_owned())];
                Mappings::Fields(self.fields(file, &path, written))
            }
        }
    }

    /// A list of mappings, each with a field of its own.
    fn fields(&mut self, file: &ProjectFile, path: &[Step], written: &[MappingConfig]) -> Vec<Mapping> {
        let mut seen: HashMap<&str, usize> = HashMap::new();
        let mut fields = Vec::new();
        for (index, mapping) in written.iter().enumerate() {
            let mut here = path.to_vec();
            here.push(Step::Index(index));
            let line = file.node.line_at(&here);
            let value = self.value(file, &here, mapping);
            let Some(to) = mapping.to.as_deref() else {
                self.findings
                    .mistake(&file.path, line, "the mapping has no `to`")
                    .hint("`to` names the destination's field");
                continue;
            };
            if let Some(first) = seen.get(to) {
                let message = format!("two mappings go to `{to}`: the other is on line {first}");
                self.findings.mistake(&file.path, line, message).hint("keep one of the two");
            } else {
                seen.insert(to, line);
            }
            fields.extend(value.map(|value| Mapping { to: to.to_owned(), value }));
        }
        fields
    }

    fn value(&mut self, file: &ProjectFile, path: &[Step], written: &MappingConfig) -> Option<MappingValue> {
        let ways = ["from", "template", "value", "variable", "object", "array"];
        let given: Vec<&str> = ways
            .into_iter()
            .zip([
                written.from.is_some(),
                written.template.is_some(),
                written.value.is_some(),
                written.variable.is_some(),
                written.object.is_some(),
                written.array.is_some(),
            ])
            .filter_map(|(way, given)| given.then_some(way))
            .collect();
        let line = file.node.line_at(path);
        if given.len() != 1 {
            let message = if given.is_empty() {
                format!("the mapping has none of {}", suggestion::listed(&ways))
            } else {
                format!("the mapping has more than one of {}", suggestion::listed(&given))
            };
            self.findings.mistake(&file.path, line, message).hint("give exactly one");
            return None;
        }
        let inside = |key: &str| {
            let mut inside = path.to_vec();
            inside.push(Step::Key(key.to_owned()));
            inside
        };
        if let Some(column) = &written.from {
            return Some(MappingValue::Column(column.clone()));
        }
        if let Some(template) = &written.template {
            if let Err(error) = connectors::template::read(&minijinja::Environment::new(), template) {
                let why = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
                let line = file.node.line_at(&inside("template"));
                self.findings
                    .mistake(&file.path, line, format!("the template cannot be read: {why}"))
                    .hint("expressions stand in `{{ … }}`, columns are `row.name`");
            }
            return Some(MappingValue::Template(template.clone()));
        }
        if let Some(value) = &written.value {
            return Some(MappingValue::Constant(value.clone()));
        }
        if let Some(variable) = written.variable {
            return Some(MappingValue::Variable(variable));
        }
        if let Some(object) = &written.object {
            return Some(MappingValue::Object(self.fields(file, &inside("object"), object)));
        }
        let array = written.array.as_deref().unwrap_or_default();
        let path = inside("array");
        let mut values = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let mut here = path.clone();
            here.push(Step::Index(index));
            if item.to.is_some() {
                let line = file.node.line_at(&here);
                self.findings.mistake(&file.path, line, "a value in a list has no `to`").hint("leave it out");
            }
            values.extend(self.value(file, &here, item));
        }
        Some(MappingValue::Array(values))
    }
}
