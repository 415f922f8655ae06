// Package idempotency lets a client send an unsafe request again without its
// being carried out twice, by the header Idempotency-Key
// (draft-ietf-httpapi-idempotency-key-header-07).
//
//	keys, err := sqlidempotency.New(db, sqlidempotency.Postgres)
//	once, err := idempotency.Middleware(keys)
//	svc.Handle("POST /orders", createOrder, once)
//
// The first request with a key claims it in a [Store] that all instances of the
// service share, is carried out, and its answer is kept for a day:
//
//	the same request again             the same answer, and Idempotency-Replayed: true
//	the same while the first is on     409 idempotency_in_progress, Retry-After
//	another request with that key      422 idempotency_key_reused
//	no key, where one is required      400 idempotency_key_required
//	a key that is none                 400 idempotency_key_invalid
//	its answer could not be kept       409 idempotency_answer_not_kept
//	the store can't be used            503 unavailable: nothing was done
//
// "The same request" is the same method, path, query and body. Keys belong to a
// caller ([WithScope], the gateway's X-Auth-Subject unless told otherwise) and a
// route ([WithRoute]), so nobody reads an answer meant for somebody else.
// Requests without a key and safe methods pass untouched.
//
// # What is kept
//
// Answers of 2xx and 3xx (see [WithKeep]). After a 4xx or 5xx, a panic, or a handler
// that gave up because the client had left, the claim is given back and the next
// request with the key is carried out. So a handler should answer 4xx or 5xx only if
// it has done nothing, or what it did may be done again.
//
// An answer is stored before it is sent: until then it is held in memory, up to
// [WithMaxAnswer]. What is larger, or flushed by the handler, is sent as it is
// written; larger than the limit, or without a Content-Length if the client leaves in
// the middle, it can't be sent again, and the same request gets 409 instead, never a
// second execution. Trailers are not kept.
//
// # What a crash leaves
//
// A claim is a lease, renewed while the handler runs. When its process dies, the
// lease expires ([WithLease], 30 s), and the next request with the key is carried
// out: by then the first may have been carried out half, or wholly without its
// answer being kept. If the lease can't be renewed in time, the context of the
// handler ends with the cause [ErrLost].
//
// Who wants more has the claim decided together with the work. What is in the same
// SQL database as the keys is done exactly once if its transaction calls
// sqlidempotency's Done: then a claim whose work is committed never runs out,
// and one that has run out can't commit its work any more.
package idempotency
