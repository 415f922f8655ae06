// Package ratelimit says whether a client may make one more request now.
//
// [GCRA] is the arithmetic alone: a state and the time in, a new state and a
// [Decision] out. The state is one number, so it fits wherever limits are to be
// shared. [Local] keeps the states of many clients in this process, in memory
// that never grows.
//
// # What a limit promises
//
// A [Limit] of 100 requests in 60 s with a burst of 100 lets a client that has
// been quiet make 100 requests at once, and then one every 600 ms. In any stretch
// of time t at most Burst + t × Requests/Window requests are admitted, whichever
// moment the stretch begins at: there are no window edges at which a client gets
// twice its share. Refused requests cost the client nothing.
//
// The algorithm is the generic cell rate algorithm (ITU-T I.371): it keeps the
// theoretical arrival time (TAT) at which a client that sent evenly would have
// used up what it was admitted. Each request moves the TAT on by Window/Requests,
// and is refused if that would put it more than Burst such steps ahead of now. A
// TAT that has passed is the same as none.
//
// # When there are more clients than room
//
// Local has a fixed number of places. A client whose TAT has passed needs none, so
// only clients of the last moments count. If there is no free place for a new
// client, it takes over the place with the least debt, and the debt with it (the
// Space-Saving algorithm of Metwally, Agrawal and El Abbadi, 2005). Two things
// follow:
//
//   - Nobody ever gets more than the limit. A client that lost its place and
//     comes back finds a debt at least as large as the one it left, because the
//     least debt among the places only grows while there is no free one. An
//     attacker with a million keys cannot wash away anybody's debt, nor its own.
//   - Nobody is locked out by mere numbers of keys. A new client starts with the
//     least debt there is, which is small until every place is used up to the
//     limit. To get there and stay there an attacker must be admitted at the rate
//     of the limit times the number of places, 65,536 by default, for as long as
//     the attack lasts. Then, and only then, new clients are refused until the
//     debts shrink; clients that have a place and are not the least indebted keep
//     theirs.
//
// Places are found by a hash with a random seed, and an attacker does not know
// which keys share places. Keys are not kept, so their length costs no memory;
// two live keys share one limit with a chance of about 10^-10.
package ratelimit
