package client

import "context"

type keyOfContext struct{}

// ContextWithKey returns a context for requests that belong to key: a user's id, say,
// or that of a shopping cart. If the service's picker minds keys, as
// [balance.ConsistentHash] does, requests with the same key go to the same instance, as
// long as it can take them, whichever process sends them. The key is not sent along. An
// empty key is none.
func ContextWithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOfContext{}, key)
}

func keyFrom(ctx context.Context) string {
	key, _ := ctx.Value(keyOfContext{}).(string)
	return key
}
