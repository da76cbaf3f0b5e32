// Sends one event to grantledger's topics.
//
// Copy schemas/released/event.4.avsc as event.avsc beside this file. The environment: KAFKA (brokers), TOPIC_PREFIX, and
// for a registered source DEPLOYMENT, SOURCE_KEY (its private key as PEM) and SOURCE_KEY_ID (`grantledger sources keys`).
package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/kgo"
)

const topic = "access.lifecycle"

//go:embed event.avsc
var schemaText string

var (
	schema    = avro.MustParse(schemaText)
	prefix    = unhex("c30140880c63f5086f1e") // of this version of the schema
	namespace = unhex("6f1c0b525a0e5d7c9c550b8f0e6d3a41")
)

// Fields that are left out here get the defaults of the schema.
type Event struct {
	EventID      string     `avro:"event_id"`
	EventType    string     `avro:"event_type"`
	OccurredAt   time.Time  `avro:"occurred_at"`
	Source       Source     `avro:"source"`
	Subject      Subject    `avro:"subject"`
	Actor        Actor      `avro:"actor"`
	Resource     *Resource  `avro:"resource"`
	Entitlement  *string    `avro:"entitlement"`
	GrantID      *string    `avro:"grant_id"`
	GrantIDKind  *string    `avro:"grant_id_kind"`
	RequestID    *string    `avro:"request_id"`
	ExpiresAt    *time.Time `avro:"expires_at"`
	ExpirySource *string    `avro:"expiry_source"`
	Outcome      string     `avro:"outcome"`
	RawSHA256    [32]byte   `avro:"raw_sha256"`
	Salt         [16]byte   `avro:"salt"`
}

type Source struct {
	System     string `avro:"system"`
	Instance   string `avro:"instance"`
	NativeID   string `avro:"native_id"`
	NativeType string `avro:"native_type"`
}

type Subject struct {
	ID   string `avro:"id"`
	Kind string `avro:"kind"`
}

type Actor struct {
	ID   string `avro:"id"`
	Kind string `avro:"kind"`
}

type Resource struct {
	Kind        string  `avro:"kind"`
	ID          string  `avro:"id"`
	Environment *string `avro:"environment"`
}

// eventID returns the same id each time the same event is sent.
func eventID(source Source, eventType string) string {
	var name bytes.Buffer
	encoder := json.NewEncoder(&name)
	encoder.SetEscapeHTML(false)
	parts := []any{source.System, source.Instance, source.NativeType, source.NativeID, eventType, 0}
	if err := encoder.Encode(parts); err != nil {
		log.Fatal(err)
	}
	text := bytes.TrimSuffix(name.Bytes(), []byte("\n"))
	id := sha1.Sum(append(append([]byte{}, namespace...), text...))
	id[6] = id[6]&0x0f | 0x50
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

func activation() Event {
	now := time.Now().UTC()
	end := now.Add(time.Hour)
	source := Source{"deploy-bot", "eu-1", "g-17/activated", "event"}
	event := Event{
		EventID:      eventID(source, "grant.activated"),
		EventType:    "grant.activated",
		OccurredAt:   now,
		Source:       source,
		Subject:      Subject{"alice@example.com", "human"},
		Actor:        Actor{"deploy-bot", "service"},
		Resource:     &Resource{"database", "orders", ptr("production")},
		Entitlement:  ptr("readwrite"),
		GrantID:      ptr("g-17"),
		GrantIDKind:  ptr("native"),
		RequestID:    ptr("r-9"),
		ExpiresAt:    &end,
		ExpirySource: ptr("native"),
		Outcome:      "success",
		RawSHA256:    sha256.Sum256(nil),
	}
	rand.Read(event.Salt[:])
	return event
}

// signature returns the header of a registered source.
func signature(key, value []byte) []kgo.RecordHeader {
	file := os.Getenv("SOURCE_KEY")
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		log.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		log.Fatalf("%s: no PEM", file)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		log.Fatal(err)
	}
	message := []byte("GLS1")
	for _, part := range [][]byte{[]byte(os.Getenv("DEPLOYMENT")), []byte(topic), key, value} {
		message = binary.BigEndian.AppendUint32(message, uint32(len(part)))
		message = append(message, part...)
	}
	signed := ed25519.Sign(private.(ed25519.PrivateKey), message)
	return []kgo.RecordHeader{{Key: "grantledger-signature", Value: append(unhex(os.Getenv("SOURCE_KEY_ID")), signed...)}}
}

func main() {
	event := activation()
	datum, err := avro.Marshal(schema, event)
	if err != nil {
		log.Fatal(err)
	}
	key := []byte(*event.GrantID) // with lifecycle shards, the key is the tenant
	value := append(append([]byte{}, prefix...), datum...)
	// Acknowledged by all replicas and idempotent: the defaults of this client, stated.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Getenv("KAFKA"), ",")...),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordDeliveryTimeout(30*time.Second),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	record := &kgo.Record{Topic: os.Getenv("TOPIC_PREFIX") + topic, Key: key, Value: value, Headers: signature(key, value)}
	if err := client.ProduceSync(context.Background(), record).FirstErr(); err != nil {
		log.Fatalf("not acknowledged: %v", err)
	}
	fmt.Println(event.EventID)
}

func ptr[T any](value T) *T { return &value }

func unhex(text string) []byte {
	found, err := hex.DecodeString(text)
	if err != nil {
		log.Fatal(err)
	}
	return found
}
