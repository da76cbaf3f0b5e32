// Sends one event to grantledger's topics.
//
// Copy schemas/released/event.4.avsc as event.avsc beside this file. The environment: KAFKA (brokers), TOPIC_PREFIX, and
// for a registered source DEPLOYMENT, SOURCE_KEY (its private key as PEM) and SOURCE_KEY_ID (`grantledger sources keys`).

import { createHash, createPrivateKey, randomBytes, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import avro from "avsc";
import { Kafka, logLevel, type IHeaders } from "kafkajs";

const PREFIX = Buffer.from("c30140880c63f5086f1e", "hex"); // of this version of the schema
const NAMESPACE = Buffer.from("6f1c0b525a0e5d7c9c550b8f0e6d3a41", "hex");
const TOPIC = "access.lifecycle";
const schema = avro.Type.forSchema(JSON.parse(readFileSync("event.avsc", "utf-8")));

interface Source {
  system: string;
  instance: string;
  native_type: string;
  native_id: string;
}

/** The same id each time the same event is sent. */
function eventId(source: Source, eventType: string): string {
  const name = JSON.stringify([source.system, source.instance, source.native_type, source.native_id, eventType, 0]);
  const id = createHash("sha1").update(NAMESPACE).update(name, "utf-8").digest().subarray(0, 16);
  id[6] = (id[6] & 0x0f) | 0x50;
  id[8] = (id[8] & 0x3f) | 0x80;
  return id.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** An event. Fields that are left out get the defaults of the schema. Times are in microseconds. */
function activation() {
  const now = Date.now() * 1000;
  const source = { system: "deploy-bot", instance: "eu-1", native_type: "event", native_id: "g-17/activated" };
  return {
    event_id: eventId(source, "grant.activated"),
    event_type: "grant.activated",
    occurred_at: now,
    source,
    subject: { id: "alice@example.com", kind: "human" },
    actor: { id: "deploy-bot", kind: "service" },
    resource: { kind: "database", id: "orders", environment: "production" },
    entitlement: "readwrite",
    grant_id: "g-17",
    grant_id_kind: "native",
    request_id: "r-9",
    expires_at: now + 3_600_000_000,
    expiry_source: "native",
    outcome: "success",
    raw_sha256: createHash("sha256").digest(),
    salt: randomBytes(16),
  };
}

/** The signature of a registered source. */
function headers(key: Buffer, value: Buffer): IHeaders {
  const file = process.env.SOURCE_KEY;
  if (!file) return {};
  const parts = [Buffer.from(process.env.DEPLOYMENT ?? ""), Buffer.from(TOPIC), key, value].flatMap((part) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(part.length);
    return [length, part];
  });
  const signed = sign(null, Buffer.concat([Buffer.from("GLS1"), ...parts]), createPrivateKey(readFileSync(file)));
  const keyId = Buffer.from(process.env.SOURCE_KEY_ID ?? "", "hex");
  return { "grantledger-signature": Buffer.concat([keyId, signed]) };
}

const event = activation();
const key = Buffer.from(event.grant_id); // with lifecycle shards, the key is the tenant
const value = Buffer.concat([PREFIX, schema.toBuffer(event)]);
const kafka = new Kafka({ brokers: (process.env.KAFKA ?? "").split(","), logLevel: logLevel.ERROR });
const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
await producer.connect();
try {
  await producer.send({
    topic: (process.env.TOPIC_PREFIX ?? "") + TOPIC,
    acks: -1,
    messages: [{ key, value, headers: headers(key, value) }],
  });
} finally {
  await producer.disconnect();
}
console.log(event.event_id);
