import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.security.Signature;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.avro.message.BinaryMessageEncoder;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Sends one event to grantledger's topics.
 *
 * Copy schemas/released/event.4.avsc as event.avsc beside this file. The environment: KAFKA (brokers), TOPIC_PREFIX, and
 * for a registered source DEPLOYMENT, SOURCE_KEY (its private key as PEM) and SOURCE_KEY_ID (`grantledger sources keys`).
 */
public class Send {
    static final String TOPIC = "access.lifecycle";
    static final byte[] NAMESPACE = HexFormat.of().parseHex("6f1c0b525a0e5d7c9c550b8f0e6d3a41");

    /** The same id each time the same event is sent. */
    static String eventId(List<String> source, String eventType) throws Exception {
        Object[] parts = {source.get(0), source.get(1), source.get(2), source.get(3), eventType, 0};
        MessageDigest sha1 = MessageDigest.getInstance("SHA-1");
        sha1.update(NAMESPACE);
        ByteBuffer id = ByteBuffer.wrap(sha1.digest(new ObjectMapper().writeValueAsBytes(parts)));
        long high = id.getLong() & ~0xF000L | 0x5000L;
        long low = id.getLong() & 0x3FFFFFFFFFFFFFFFL | 0x8000000000000000L;
        return new UUID(high, low).toString();
    }

    /** A record inside of the event, also of a field that may be null. */
    static GenericRecord part(Schema event, String field, Map<String, String> values) {
        Schema schema = event.getField(field).schema();
        GenericRecordBuilder built = new GenericRecordBuilder(schema.isUnion() ? schema.getTypes().get(1) : schema);
        values.forEach(built::set);
        return built.build();
    }

    /** An event. Fields that are left out get the defaults of the schema. Times are in microseconds. */
    static GenericRecord activation(Schema schema) throws Exception {
        long now = ChronoUnit.MICROS.between(Instant.EPOCH, Instant.now());
        byte[] salt = new byte[16];
        new SecureRandom().nextBytes(salt);
        Schema hash = schema.getField("raw_sha256").schema();
        return new GenericRecordBuilder(schema)
            .set("event_id", eventId(List.of("deploy-bot", "eu-1", "event", "g-17/activated"), "grant.activated"))
            .set("event_type", "grant.activated")
            .set("occurred_at", now)
            .set("source", part(schema, "source", Map.of(
                "system", "deploy-bot", "instance", "eu-1", "native_type", "event", "native_id", "g-17/activated")))
            .set("subject", part(schema, "subject", Map.of("id", "alice@example.com", "kind", "human")))
            .set("actor", part(schema, "actor", Map.of("id", "deploy-bot", "kind", "service")))
            .set("resource", part(schema, "resource", Map.of(
                "kind", "database", "id", "orders", "environment", "production")))
            .set("entitlement", "readwrite")
            .set("grant_id", "g-17")
            .set("grant_id_kind", "native")
            .set("request_id", "r-9")
            .set("expires_at", now + 3_600_000_000L)
            .set("expiry_source", "native")
            .set("outcome", "success")
            .set("raw_sha256", new GenericData.Fixed(hash, MessageDigest.getInstance("SHA-256").digest()))
            .set("salt", new GenericData.Fixed(schema.getField("salt").schema(), salt))
            .build();
    }

    /** The signature of a registered source. */
    static byte[] signature(byte[] key, byte[] value) throws Exception {
        String pem = Files.readString(Path.of(System.getenv("SOURCE_KEY"))).replaceAll("-----[A-Z ]+-----|\\s", "");
        Signature signer = Signature.getInstance("Ed25519");
        signer.initSign(KeyFactory.getInstance("Ed25519").generatePrivate(
            new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem))));
        signer.update(utf8("GLS1"));
        for (byte[] part : List.of(utf8(System.getenv("DEPLOYMENT")), utf8(TOPIC), key, value)) {
            signer.update(ByteBuffer.allocate(4).putInt(part.length).array());
            signer.update(part);
        }
        byte[] keyId = HexFormat.of().parseHex(System.getenv("SOURCE_KEY_ID"));
        return ByteBuffer.allocate(72).put(keyId).put(signer.sign()).array();
    }

    static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    public static void main(String[] arguments) throws Exception {
        Schema schema = new Schema.Parser().parse(new File("event.avsc"));
        GenericRecord event = activation(schema);
        byte[] key = utf8(event.get("grant_id").toString()); // with lifecycle shards, the key is the tenant
        // The encoder writes the prefix of the schema, c30140880c63f5086f1e, and the datum.
        ByteBuffer encoded = new BinaryMessageEncoder<GenericRecord>(GenericData.get(), schema).encode(event);
        byte[] value = new byte[encoded.remaining()];
        encoded.get(value);
        Map<String, Object> options = Map.of(
            "bootstrap.servers", System.getenv("KAFKA"),
            "acks", "all",
            "enable.idempotence", true,
            "max.block.ms", 30_000,
            "request.timeout.ms", 10_000,
            "delivery.timeout.ms", 30_000);
        String topic = System.getenv().getOrDefault("TOPIC_PREFIX", "") + TOPIC;
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, key, value);
        if (System.getenv("SOURCE_KEY") != null) {
            record.headers().add("grantledger-signature", signature(key, value));
        }
        try (var producer = new KafkaProducer<>(options, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.send(record).get(); // throws unless the brokers acknowledged it
        }
        System.out.println(event.get("event_id"));
    }
}
