// Package natsidempotency keeps idempotency keys in NATS JetStream, in the
// key-value bucket keelson_idempotency, which package engine provisions; see
// [engine.Engine.Idempotency].
//
// Each key has a time to live of its own, in which the server removes it: a claim
// for its lease, an answer for as long as it is kept. Every change is made on
// condition that nothing else has changed the key, so of several claims one wins,
// and who has lost one can't undo another's.
//
// An answer that does not fit into a message (the server's max_payload, 1 MiB unless
// configured otherwise) or into the bucket is kept without header and body. A full
// bucket takes no new keys, but what was begun is completed (with one copy; with
// several, a full bucket takes nothing at all until something has expired).
//
// [engine.Engine.Idempotency]: https://pkg.go.dev/github.com/keelson-go/keelson/engine#Engine.Idempotency
package natsidempotency

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/keelson-go/keelson/idempotency"
)

// Bucket is the bucket's name. Its keys are "service.key".
const Bucket = "keelson_idempotency"

// MaxValue is the most bytes of a value in the bucket: the largest answer that is
// kept by default, as far as the server takes such messages, with room for its
// header.
const MaxValue = idempotency.DefaultMaxAnswer + 64<<10

const (
	// markerTTL is how long the server remembers that a key was given back. Nobody
	// watches, so the least there is.
	markerTTL = time.Second
	// headroom of a message is for what NATS adds to it.
	headroom = 4 << 10

	operationHeader = "KV-Operation"
	reasonHeader    = "Nats-Marker-Reason"
	opDelete        = "DEL"
)

// Store implements [idempotency.Store]. It is safe for concurrent use, and does
// not own the connection.
type Store struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	prefix string // of subjects
}

var serviceName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// New returns the store of a service's keys over nc: each service has keys of its
// own, which all of its instances share. The bucket must exist: see package engine.
func New(ctx context.Context, nc *nats.Conn, service string) (*Store, error) {
	if !serviceName.MatchString(service) {
		return nil, fmt.Errorf("natsidempotency: %q is no service's name: give one like user-service", service)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("natsidempotency: %w", err)
	}
	if _, err := js.Stream(ctx, "KV_"+Bucket); err != nil {
		return nil, fmt.Errorf("natsidempotency: open bucket %s: %w", Bucket, unavailable(err))
	}
	return &Store{nc: nc, js: js, prefix: "$KV." + Bucket + "." + service + "."}, nil
}

// Claim implements [idempotency.Store].
func (s *Store) Claim(ctx context.Context, c idempotency.Claim) (idempotency.Outcome, error) {
	value := record{Fingerprint: c.Fingerprint, Owner: c.Owner, Room: 2 * room}.encode()
	if !s.nc.IsConnected() {
		return idempotency.Outcome{}, failed("claim", notConnected())
	}
	// Mostly the key is new, and there is nothing to read first.
	err := s.publish(ctx, c.Key, value, 0, c.Lease)
	if err == nil {
		return idempotency.Outcome{State: idempotency.Claimed}, nil
	}
	if !conflicts(err) {
		return idempotency.Outcome{}, failed("claim", err)
	}
	var outcome idempotency.Outcome
	err = s.change(ctx, c.Key, func(e entry) error {
		switch {
		case !e.there || !e.Completed && e.Owner == c.Owner:
			outcome.State = idempotency.Claimed
			return s.publish(ctx, c.Key, value, e.revision, c.Lease)
		case !e.Completed:
			outcome = idempotency.Outcome{State: idempotency.InProgress, Fingerprint: e.Fingerprint}
			return nil
		}
		outcome = idempotency.Outcome{State: idempotency.Completed, Fingerprint: e.Fingerprint}
		return outcome.Answer.UnmarshalBinary(e.Answer)
	})
	if err != nil {
		return idempotency.Outcome{}, failed("claim", err)
	}
	return outcome, nil
}

// Renew implements [idempotency.Store].
func (s *Store) Renew(ctx context.Context, c idempotency.Claim) error {
	return failed("renew", s.change(ctx, c.Key, func(e entry) error {
		if !e.there || e.Owner != c.Owner || e.Completed {
			return idempotency.ErrLost
		}
		digits := len(strconv.FormatUint(e.revision, 10)) // which go into a header
		value := record{Fingerprint: c.Fingerprint, Owner: c.Owner, Room: room - digits}.encode()
		return s.publish(ctx, c.Key, value, e.revision, c.Lease)
	}))
}

// Complete implements [idempotency.Store].
func (s *Store) Complete(ctx context.Context, c idempotency.Claim, a idempotency.Answer) error {
	err := s.complete(ctx, c, a)
	if api, ok := errors.AsType[*jetstream.APIError](err); ok && api.ErrorCode == codeStoreFailed && !a.Omitted {
		// There is no room for the answer, but for the fact that there was one.
		err = s.complete(ctx, c, idempotency.Answer{Status: a.Status, Omitted: true})
	}
	return failed("complete", err)
}

func (s *Store) complete(ctx context.Context, c idempotency.Claim, a idempotency.Answer) error {
	value, err := s.completed(c, a)
	if err != nil {
		return err
	}
	return s.change(ctx, c.Key, func(e entry) error {
		if e.there && e.Owner != c.Owner {
			return idempotency.ErrLost
		}
		return s.publish(ctx, c.Key, value, e.revision, c.TTL)
	})
}

// completed is the record of an answer, or, if that is too large, of its status.
func (s *Store) completed(c idempotency.Claim, a idempotency.Answer) ([]byte, error) {
	r := record{Fingerprint: c.Fingerprint, Owner: c.Owner, Completed: true}
	for {
		var err error
		if r.Answer, err = a.MarshalBinary(); err != nil {
			return nil, err
		}
		value := r.encode()
		if a.Omitted || int64(len(value)) <= min(s.nc.MaxPayload(), MaxValue)-headroom {
			return value, nil
		}
		a = idempotency.Answer{Status: a.Status, Omitted: true}
	}
}

// Release implements [idempotency.Store].
func (s *Store) Release(ctx context.Context, c idempotency.Claim) error {
	return failed("release", s.change(ctx, c.Key, func(e entry) error {
		if !e.there || e.Owner != c.Owner || e.Completed {
			return nil
		}
		msg := &nats.Msg{Subject: s.prefix + c.Key, Header: nats.Header{operationHeader: {opDelete}}}
		_, err := s.js.PublishMsg(ctx, msg, jetstream.WithMsgTTL(markerTTL), jetstream.WithExpectLastSequencePerSubject(e.revision))
		return err
	}))
}

// entry is what the bucket has for a key.
type entry struct {
	record
	there    bool
	revision uint64 // also of the mark that a removed key leaves for a while
}

// change runs f on what is there, again while others change it at the same time.
func (s *Store) change(ctx context.Context, key string, f func(entry) error) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if !s.nc.IsConnected() {
			return notConnected() // rather than wait for an answer to what can't be sent
		}
		e, err := s.get(ctx, key)
		if err == nil {
			err = f(e)
		}
		if !conflicts(err) {
			return unavailable(err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// get asks the bucket's leader. Any copy may answer the client's own Get, and one
// that lags behind would have a claim of ours be somebody else's, or nobody's.
func (s *Store) get(ctx context.Context, key string) (entry, error) {
	question, err := json.Marshal(map[string]string{"last_by_subj": s.prefix + key})
	if err != nil {
		return entry{}, err
	}
	m, err := s.nc.RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET.KV_"+Bucket, question)
	if err != nil {
		return entry{}, err
	}
	var said struct {
		Error   *jetstream.APIError `json:"error"`
		Message struct {
			Sequence uint64 `json:"seq"`
			Header   []byte `json:"hdrs"`
			Data     []byte `json:"data"`
		} `json:"message"`
	}
	err = json.Unmarshal(m.Data, &said)
	switch {
	case err != nil:
		return entry{}, fmt.Errorf("read the engine's answer: %w", err)
	case said.Error != nil && said.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return entry{}, nil
	case said.Error != nil:
		return entry{}, said.Error
	}
	if len(said.Message.Header) > 0 {
		header, err := nats.DecodeHeadersMsg(said.Message.Header)
		if err != nil {
			return entry{}, fmt.Errorf("read the engine's answer: %w", err)
		}
		if header.Get(operationHeader) != "" || header.Get(reasonHeader) != "" {
			return entry{revision: said.Message.Sequence}, nil
		}
	}
	r, err := decode(said.Message.Data)
	return entry{record: r, there: true, revision: said.Message.Sequence}, err
}

// publish writes a key that is at revision, for ttl. The client's own Update would
// drop the time to live.
func (s *Store) publish(ctx context.Context, key string, value []byte, revision uint64, ttl time.Duration) error {
	_, err := s.js.PublishMsg(ctx, &nats.Msg{Subject: s.prefix + key, Data: value},
		jetstream.WithMsgTTL(seconds(ttl)), jetstream.WithExpectLastSequencePerSubject(revision))
	return err
}

// seconds rounds up: the server counts in whole seconds, and cuts off the rest.
func seconds(d time.Duration) time.Duration {
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}

// conflicts reports whether a key was not at the expected revision.
func conflicts(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}

// codes of the server that say it has no room.
const (
	codeResources    jetstream.ErrorCode = 10023 // insufficient resources
	codeStoreFailed  jetstream.ErrorCode = 10077 // such as: maximum bytes exceeded
	codeMemoryFull   jetstream.ErrorCode = 10028
	codeStorageFull  jetstream.ErrorCode = 10047
	codeNotAvailable jetstream.ErrorCode = 10008 // no leader at the moment
)

func notConnected() error {
	return fmt.Errorf("%w: not connected to the engine", idempotency.ErrUnavailable)
}

// unavailable marks what NATS says when it can't be reached, has no room, or has
// not got the bucket (yet).
func unavailable(err error) error {
	for _, e := range []error{
		nats.ErrConnectionClosed, nats.ErrDisconnected, nats.ErrNoServers, nats.ErrTimeout, nats.ErrNoResponders,
		nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded, jetstream.ErrNoStreamResponse, jetstream.ErrStreamNotFound,
		context.DeadlineExceeded,
	} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: %w", idempotency.ErrUnavailable, err)
		}
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		switch api.ErrorCode {
		case codeResources, codeStoreFailed, codeMemoryFull, codeStorageFull, codeNotAvailable:
			return fmt.Errorf("%w: %w", idempotency.ErrUnavailable, err)
		}
	}
	return err
}

func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s idempotency key: %w", what, unavailable(err))
}
