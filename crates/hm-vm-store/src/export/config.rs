//! The configuration of an exported image: that of the image below, with what the snapshot adds.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use hm_vm_core::calendar::civil_date;
use hm_vm_oci::{Digest, Platform};
use serde_json::{Map, Value, json};

use super::options::ExportOptions;
use crate::error::StoreError;

/// What a configuration is made of. Fields of the image's configuration that mean nothing to us are kept.
pub(super) struct NewConfig<'a> {
    /// That of the image below, if it has one.
    pub(super) base: Option<&'a str>,
    /// How many of the layers are that image's, as it has them.
    pub(super) base_layers: usize,
    /// All layers, bottom first.
    pub(super) diff_ids: &'a [Digest],
    pub(super) snapshot: Option<Snapshot>,
    /// When it was made; that of the image below counts where there is no snapshot.
    pub(super) created: SystemTime,
}

/// What is said of a snapshot.
pub(super) struct Snapshot {
    pub(super) id: String,
    pub(super) label: Option<String>,
    /// Its own id, its parent's and so on.
    pub(super) lineage: Vec<String>,
}

impl NewConfig<'_> {
    /// The bytes of the configuration: the same for the same image.
    pub(super) fn bytes(&self, options: &ExportOptions) -> Result<Vec<u8>, StoreError> {
        let mut config = match self.base {
            Some(text) => object(text)?,
            None => Map::new(),
        };
        if let Some(text) = self.base
            && self.is_unchanged(&config, options)
        {
            return Ok(text.as_bytes().to_vec());
        }
        if self.base.is_none() {
            let platform = Platform::here();
            config.insert("architecture".into(), platform.architecture.into());
            config.insert("os".into(), platform.os.into());
            if let Some(variant) = platform.variant {
                config.insert("variant".into(), variant.into());
            }
        }
        // They tell of the container that Docker made the image in.
        config.remove("container");
        config.remove("container_config");
        let created = rfc3339(self.created);
        if self.snapshot.is_some() || !config.contains_key("created") {
            config.insert("created".into(), created.clone().into());
        }
        self.put_execution(&mut config, options);
        self.put_history(&mut config, &created);
        let diff_ids: Vec<String> = self.diff_ids.iter().map(Digest::to_string).collect();
        config.insert(
            "rootfs".into(),
            json!({ "type": "layers", "diff_ids": diff_ids }),
        );
        Ok(Value::Object(config).to_string().into_bytes())
    }

    /// Whether the image is exported as it came.
    fn is_unchanged(&self, config: &Map<String, Value>, options: &ExportOptions) -> bool {
        let diff_ids: Vec<Value> = self
            .diff_ids
            .iter()
            .map(|digest| digest.to_string().into())
            .collect();
        let same = config
            .get("rootfs")
            .and_then(|rootfs| rootfs.get("diff_ids"));
        self.snapshot.is_none()
            && same == Some(&Value::Array(diff_ids))
            && options.env.is_empty()
            && options.labels.is_empty()
            && options.key.is_none()
            && options.working_dir.is_none()
    }

    fn put_execution(&self, config: &mut Map<String, Value>, options: &ExportOptions) {
        let mut execution = match config.remove("config") {
            Some(Value::Object(execution)) => execution,
            _ => Map::new(),
        };
        if self.base.is_none() {
            // A root file system says nothing of what to run in it; a shell is what people want.
            execution.insert("Cmd".into(), json!(["/bin/sh"]));
        }
        if !options.env.is_empty() {
            let mut env = match execution.remove("Env") {
                Some(Value::Array(env)) => env,
                _ => Vec::new(),
            };
            put_env(&mut env, &options.env);
            execution.insert("Env".into(), Value::Array(env));
        }
        if let Some(directory) = &options.working_dir {
            execution.insert("WorkingDir".into(), directory.clone().into());
        }
        let mut labels = match execution.remove("Labels") {
            Some(Value::Object(labels)) => labels,
            _ => Map::new(),
        };
        for (name, value) in &options.labels {
            labels.insert(name.clone(), value.clone().into());
        }
        if let Some(snapshot) = &self.snapshot {
            let lineage = json!(snapshot.lineage).to_string();
            labels.insert("dev.hm-vm.snapshot".into(), snapshot.id.clone().into());
            labels.insert("dev.hm-vm.lineage".into(), lineage.into());
        }
        if let Some(key) = &options.key {
            labels.insert("dev.hm-vm.key".into(), key.clone().into());
        }
        if !labels.is_empty() {
            execution.insert("Labels".into(), Value::Object(labels));
        }
        config.insert("config".into(), Value::Object(execution));
    }

    /// Tells of as many layers as there are: some tools count.
    fn put_history(&self, config: &mut Map<String, Value>, created: &str) {
        let mut history = match config.remove("history") {
            Some(Value::Array(history)) => history,
            _ => Vec::new(),
        };
        let makes_layer = |step: &&Value| step.get("empty_layer") != Some(&Value::Bool(true));
        let base_layers = self.base_layers.min(self.diff_ids.len());
        if history.iter().filter(makes_layer).count() != base_layers {
            history = vec![json!({ "created": created, "created_by": "hm-vm image" }); base_layers];
        }
        let by = match &self.snapshot {
            Some(snapshot) => format!("hm-vm snapshot {}", snapshot.id),
            None => "hm-vm image".to_owned(),
        };
        for place in base_layers..self.diff_ids.len() {
            let mut step = json!({ "created": created, "created_by": by });
            let label = self
                .snapshot
                .as_ref()
                .and_then(|snapshot| snapshot.label.as_ref());
            if let Some(label) = label
                && place + 1 == self.diff_ids.len()
            {
                step["comment"] = label.clone().into();
            }
            history.push(step);
        }
        config.insert("history".into(), Value::Array(history));
    }
}

fn object(text: &str) -> Result<Map<String, Value>, StoreError> {
    let bad = || StoreError::invalid("the configuration of the image", "it is damaged");
    match serde_json::from_str(text).map_err(|_| bad())? {
        Value::Object(config) => Ok(config),
        _ => Err(bad()),
    }
}

/// Replaces variables that are there, in their places, and adds the others.
fn put_env(env: &mut Vec<Value>, new: &BTreeMap<String, String>) {
    for (name, value) in new {
        let line = Value::from(format!("{name}={value}"));
        let is_it = |old: &Value| {
            let old = old.as_str().unwrap_or("");
            old.split_once('=').map_or(old, |(name, _)| name) == name
        };
        match env.iter().position(is_it) {
            Some(place) => env[place] = line,
            None => env.push(line),
        }
    }
}

/// `2026-03-01T12:00:00.123456Z`, without a fraction that is zero.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let (year, month, day) = civil_date(seconds / 86400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    if micros != 0 {
        text.push_str(format!(".{micros:06}").trim_end_matches('0'));
    }
    text.push('Z');
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_as_the_oci_has_them() {
        let at = |micros| rfc3339(UNIX_EPOCH + Duration::from_micros(micros));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_400_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_772_366_400_500_000), "2026-03-01T12:00:00.5Z");
    }

    #[test]
    fn variables_are_replaced_where_they_are() {
        let mut env = vec![json!("PATH=/bin"), json!("A=1"), json!("B")];
        let new = [("A", "2"), ("B", "3"), ("C", "4")];
        let new = new.map(|(name, value)| (name.to_owned(), value.to_owned()));
        put_env(&mut env, &new.into());
        assert_eq!(env, ["PATH=/bin", "A=2", "B=3", "C=4"]);
    }

    #[test]
    fn what_is_not_ours_is_kept() {
        let base = r#"{"os":"linux","architecture":"arm64","created":"2020-01-01T00:00:00Z","container":"x",
            "config":{"Entrypoint":["/e"],"ExposedPorts":{"80/tcp":{}},"Env":["A=1"],"Labels":{"l":"1"}},
            "rootfs":{"type":"layers","diff_ids":[]},
            "history":[{"created_by":"a"},{"created_by":"b","empty_layer":true}]}"#;
        let new = NewConfig {
            base: Some(base),
            base_layers: 1,
            diff_ids: &[Digest::of(b"a"), Digest::of(b"b")],
            snapshot: Some(Snapshot {
                id: "s".into(),
                label: Some("built".into()),
                lineage: vec!["s".into(), "p".into()],
            }),
            created: UNIX_EPOCH,
        };
        let options = ExportOptions {
            key: Some("k".into()),
            ..ExportOptions::default()
        };
        let config: Value = serde_json::from_slice(&new.bytes(&options).unwrap()).unwrap();
        assert_eq!(config["config"]["Entrypoint"], json!(["/e"]));
        assert_eq!(config["config"]["ExposedPorts"], json!({"80/tcp": {}}));
        assert_eq!(config["config"]["Env"], json!(["A=1"]));
        let labels = json!({"l": "1", "dev.hm-vm.snapshot": "s", "dev.hm-vm.key": "k",
            "dev.hm-vm.lineage": r#"["s","p"]"#});
        assert_eq!(config["config"]["Labels"], labels);
        assert_eq!(config["architecture"], "arm64");
        assert_eq!(config["created"], "1970-01-01T00:00:00Z");
        assert_eq!(config.get("container"), None);
        let history = config["history"].as_array().unwrap();
        assert_eq!(history.len(), 3);
        assert_eq!(history[2]["comment"], "built");
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 2);
    }
}
