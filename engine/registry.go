package engine

import (
	"context"
	"log/slog"

	"github.com/keelson-go/keelson/registry"
	"github.com/keelson-go/keelson/registry/natsregistry"
)

// RegistryDriver returns the registry's store on this engine. Records it can't
// read are reported to log, which may be nil. The driver works for as long as
// the engine's connection.
func (e *Engine) RegistryDriver(ctx context.Context, log *slog.Logger) (registry.Driver, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	opts := []natsregistry.Option{natsregistry.WithLogger(log)}
	if sys := e.System(); sys != nil {
		opts = append(opts, natsregistry.WithSystem(sys))
	}
	return natsregistry.New(ctx, e.Conn(), opts...)
}
