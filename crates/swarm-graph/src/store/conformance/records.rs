//! Clauses about small documents.

use std::sync::Arc;

use serde_json::json;
use swarm_core::port::records::{Error, Record};
use swarm_core::port::store::Store;

use super::{Ground, Outcome, Verdict};

/// Compare and set, by version.
pub async fn a_record_is_written_by_whoever_read_its_last_version(
    ground: &mut dyn Ground,
) -> Outcome {
    let store = ground.store();
    assert_eq!(store.get("issues", "1").await?, None);
    assert_eq!(store.put("issues", "1", 0, json!({ "n": 1 })).await?, 1);
    assert_eq!(store.put("issues", "1", 1, json!({ "n": 2 })).await?, 2);
    for expected in [0, 1, 3] {
        let refusal = store.put("issues", "1", expected, json!(0)).await;
        assert!(
            matches!(&refusal, Err(Error::Conflict { key, expected: ours, found: 2 })
                if key == "1" && *ours == expected),
            "{refusal:?}"
        );
    }
    let missing = store.put("issues", "2", 1, json!(0)).await;
    assert!(matches!(missing, Err(Error::Conflict { expected: 1, found: 0, .. })), "{missing:?}");
    let record = Record { key: "1".to_owned(), version: 2, value: json!({ "n": 2 }) };
    assert_eq!(store.get("issues", "1").await?, Some(record));
    assert_eq!(store.get("issues", "2").await?, None);
    Ok(Verdict::Held)
}

/// Prefixes are taken literally, namespaces are apart.
pub async fn records_are_listed_by_prefix_in_order(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    for key in ["repo/2", "repo/10", "repo", "repo%", "repo/1", "Repo/1", "répo", "z"] {
        store.put("a", key, 0, json!(key)).await?;
    }
    store.put("b", "repo/9", 0, json!(0)).await?;
    for (namespace, prefix, expected) in [
        ("a", "repo/", vec!["repo/1", "repo/10", "repo/2"]),
        ("a", "repo%", vec!["repo%"]),
        ("a", "ré", vec!["répo"]),
        ("a", "x", vec![]),
        ("a", "", vec!["Repo/1", "repo", "repo%", "repo/1", "repo/10", "repo/2", "répo", "z"]),
        ("b", "repo", vec!["repo/9"]),
        ("c", "", vec![]),
    ] {
        let listed = store.list(namespace, prefix).await?;
        let keys: Vec<&str> = listed.iter().map(|record| record.key.as_str()).collect();
        assert_eq!(keys, expected, "{namespace} {prefix}");
    }
    Ok(Verdict::Held)
}

/// Writers race; each version has one author.
pub async fn of_many_writers_of_a_record_one_wins(ground: &mut dyn Ground) -> Outcome {
    let store = ground.store();
    let writers = (0..50).map(|n| {
        let store: Arc<dyn Store> = Arc::clone(&store);
        tokio::spawn(async move { store.put("a", "k", 0, json!(n)).await })
    });
    let mut wins = 0;
    for writer in futures::future::join_all(writers).await {
        match writer? {
            Ok(version) => {
                assert_eq!(version, 1);
                wins += 1;
            }
            Err(Error::Conflict { found, .. }) => assert_eq!(found, 1),
            Err(other) => return Err(other.into()),
        }
    }
    assert_eq!(wins, 1);
    Ok(Verdict::Held)
}
