package service

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/keelson-go/keelson/concurrency"
)

// FromEnvironment takes from the environment (see [WithEnvironment]) what the
// surroundings decide, and what they don't, leaves as it is:
//
//	PORT                       port to listen on
//	KEELSON_HOST               address to listen on
//	KEELSON_ADVERTISE          address under which others reach this instance, see WithAdvertise
//	KEELSON_INSTANCE           id of the instance
//	KEELSON_VERSION            version
//	KEELSON_ZONE               failure domain
//	KEELSON_TAGS               tags, separated by commas
//	KEELSON_STOP_TIMEOUT       such as 10s
//	KEELSON_DRAIN_DELAY        such as 250ms
//	KEELSON_CONCURRENCY_LIMIT  adaptive, off, or how many requests may be under way at once
//	KEELSON_LOG_LEVEL          debug, info, warn or error
//	KEELSON_LOG_FORMAT         json or text
//
// Values that can't be read are an error of [New], which names them all.
func FromEnvironment() Option {
	return func(o *options) {
		read := func(name, want string, parse func(v string) error) {
			if v := o.environment(name); v != "" && parse(v) != nil {
				o.err = errors.Join(o.err, fmt.Errorf("%s is %q: give %s", name, v, want))
			}
		}
		text := func(name string, to *string) {
			read(name, "", func(v string) error { *to = v; return nil })
		}
		duration := func(name string, to *time.Duration, least time.Duration) {
			read(name, "a duration such as 10s", func(v string) error {
				d, err := time.ParseDuration(v)
				if err != nil || d < least {
					return errUnreadable
				}
				*to = d
				return nil
			})
		}
		text("KEELSON_HOST", &o.host)
		text("KEELSON_ADVERTISE", &o.advertise)
		text("KEELSON_INSTANCE", &o.id)
		text("KEELSON_VERSION", &o.version)
		text("KEELSON_ZONE", &o.zone)
		duration("KEELSON_STOP_TIMEOUT", &o.stopTimeout, 1)
		duration("KEELSON_DRAIN_DELAY", &o.drainDelay, 0)
		read("KEELSON_TAGS", "tags with commas between", func(v string) error {
			o.tags = nil
			for tag := range strings.SplitSeq(v, ",") {
				if tag = strings.TrimSpace(tag); tag != "" {
					o.tags = append(o.tags, tag)
				}
			}
			return nil
		})
		read("PORT", "a number from 0 to 65535", func(v string) error {
			n, err := strconv.ParseUint(v, 10, 16)
			if err == nil {
				o.port = int(n)
			}
			return err
		})
		read("KEELSON_CONCURRENCY_LIMIT", "adaptive, off or a number from 1", func(v string) error {
			switch v {
			case "adaptive":
				WithConcurrencyLimit()(o)
			case "off":
				WithoutConcurrencyLimit()(o)
			default:
				n, err := strconv.Atoi(v)
				if err != nil || n < 1 {
					return errUnreadable
				}
				WithConcurrencyLimit(concurrency.Fixed(n))(o)
			}
			return nil
		})
		read("KEELSON_LOG_LEVEL", "debug, info, warn or error", func(v string) error {
			var level slog.Level
			err := level.UnmarshalText([]byte(v))
			if err == nil {
				o.log.LogLevel = level
			}
			return err
		})
		read("KEELSON_LOG_FORMAT", "json or text", func(v string) error {
			if v != "json" && v != "text" {
				return errUnreadable
			}
			o.log.LogFormat = v
			return nil
		})
	}
}

var errUnreadable = errors.New("can't be read")
