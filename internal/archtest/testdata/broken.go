package broken

import (
	"testing"
	"time"
)

func Bare() {}

func bare() {}

// Good is documented.
type Good struct{}

func (g *Good) BareMethod() {}

type quiet struct{}

func (quiet) Method() {}

type BareType[T any] struct{}

// The comment on a group of types is no comment on a type.
type (
	InGroup struct{}
)

const BareConst = 1

// Limits.
const (
	Low  = 1
	High = 2
)

var (
	Commented = 1 // here
	hidden    = 2
)

func test(t *testing.T) {
	time.Sleep(1)
	t.Skip()
}
