"""Decision problems over trees and profiles: who decides what, when, and how well."""
