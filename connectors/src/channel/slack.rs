//! Slack: through an incoming webhook, or as an app with a token.

use std::sync::Arc;

use async_trait::async_trait;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use schemars::{JsonSchema, schema_for};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Channel, Notice, Post, Severity, Unsent, cut};
use crate::catalogue::{BuildContext, ChannelConnector, ConfigError};

/// The catalogue's line.
pub static SLACK: ChannelConnector = ChannelConnector {
    name: "slack",
    title: "Slack",
    summary: "Posts to a channel of Slack: through an incoming webhook (`url`), or as an app with the scope `chat:write` \
              (`token` and `channel`).",
    config_schema: || schema_for!(Config),
    build,
};

const API: &str = "https://slack.com/api";
/// The most characters that Slack takes in the text of one block.
const MOST: usize = 2_900;

/// The channel's file. Not `Debug`: it holds secrets.
#[derive(Clone, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Config {
    /// The address of an incoming webhook, which belongs to one channel. It is a secret.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    url: Option<String>,
    /// The token of an app (`xoxb-…`), instead of `url`.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    token: Option<String>,
    /// Beside `token`: the channel, by its name or id.
    #[serde(default)]
    channel: Option<String>,
    /// Beside `token`: where Slack's API is. Default: `https://slack.com/api`.
    #[serde(default)]
    endpoint: Option<String>,
    /// Allows loopback, private and link-local addresses, which are refused otherwise.
    #[serde(default)]
    allow_private_networks: bool,
}

#[derive(Debug)]
struct Slack {
    post: Post,
    headers: HeaderMap,
    channel: Option<String>,
}

fn build(config: Value, context: &BuildContext) -> Result<Arc<dyn Channel>, ConfigError> {
    let wrong =
        |path: &str, message: &str| ConfigError { path: path.to_owned(), message: message.to_owned() };
    let config: Config = serde_json::from_value(config).map_err(|error| wrong("", &error.to_string()))?;
    let private = config.allow_private_networks;
    let mut headers = HeaderMap::new();
    match (&config.url, &config.token, &config.channel) {
        (Some(url), None, None) if config.endpoint.is_none() => {
            let post = Post::new("url", url, private, &[url], context)?;
            Ok(Arc::new(Slack { post, headers, channel: None }))
        }
        (None, Some(token), Some(channel)) => {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| wrong("token", "holds characters that no header can carry"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
            let endpoint = config.endpoint.as_deref().unwrap_or(API).trim_end_matches('/');
            let post =
                Post::new("endpoint", &format!("{endpoint}/chat.postMessage"), private, &[token], context)?;
            Ok(Arc::new(Slack { post, headers, channel: Some(channel.clone()) }))
        }
        (None, Some(_), None) => Err(wrong("token", "needs `channel` beside it")),
        (None, None, _) => Err(wrong("", "give `url` (an incoming webhook), or `token` and `channel`")),
        _ => Err(wrong("url", "stands alone: `token`, `channel` and `endpoint` are the other way")),
    }
}

/// A text in which nothing is markup.
fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[async_trait]
impl Channel for Slack {
    async fn send(&self, notice: &Notice) -> Result<(), Unsent> {
        let sign = match notice.severity {
            Severity::Ok => ":white_check_mark:",
            Severity::Warning => ":warning:",
            Severity::Critical => ":rotating_light:",
        };
        let title = format!("{sign} *{}*", plain(&cut(&notice.title, 500)));
        let text = plain(&cut(&notice.text(), MOST));
        let section = |text: &str| json!({"type": "section", "text": {"type": "mrkdwn", "text": text}});
        let mut body = json!({"text": title, "blocks": [section(&title), section(&text)]});
        if let Some(channel) = &self.channel {
            body["channel"] = json!(channel);
        }
        let body = serde_json::to_vec(&body).map_err(|error| Unsent::new(error.to_string()))?;
        let answer = self.post.json(self.headers.clone(), body).await?;
        // The API says 200 to everything; a webhook says `ok` in plain text.
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if self.channel.is_some() && said["ok"] != true {
            return Err(Unsent::new(format!("Slack refuses the message: {}", self.post.said(&answer))));
        }
        Ok(())
    }
}
