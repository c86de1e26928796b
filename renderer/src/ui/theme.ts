import {
  ActionIcon,
  Button,
  Checkbox,
  createTheme,
  type CSSVariablesResolver,
  type MantineThemeOverride,
  Input,
  Menu,
  Modal,
  Notification,
  PasswordInput,
  Popover,
  SegmentedControl,
  Select,
  Switch,
  Textarea,
  TextInput,
  Tooltip,
} from "@mantine/core";
import { BusyButton } from "./busy-button.tsx";
import { dark, light, type Palette } from "./tokens.ts";

/** Ten shades of one colour: Mantine wants a scale, we use a single fill. */
const flat = (fill: string) => Array.from({ length: 10 }, () => fill) as never;

/** The CSS variable with the height of the notices that are shown, in px. */
export const NOTICES_HEIGHT = "--notices-height";

/** Mantine in the console's measure: 13 px, small controls, no shadows but on what floats, quick and little motion. */
export const theme: MantineThemeOverride = createTheme({
  fontFamily:
    '"Inter", "Inter Variable", system-ui, -apple-system, "Segoe UI", "Noto Sans", "Helvetica Neue", sans-serif',
  fontFamilyMonospace:
    'ui-monospace, "SF Mono", "Cascadia Mono", "JetBrains Mono", "DejaVu Sans Mono", monospace',
  fontSizes: { xs: "13px", sm: "13px", md: "13px", lg: "15px", xl: "18px" },
  lineHeights: { xs: "1.35", sm: "1.4", md: "1.45", lg: "1.4", xl: "1.3" },
  spacing: { xs: "6px", sm: "8px", md: "12px", lg: "16px", xl: "24px" },
  fontWeights: { regular: "400", medium: "500", bold: "600" },
  radius: { xs: "3px", sm: "5px", md: "6px", lg: "8px", xl: "12px" },
  defaultRadius: "sm",
  cursorType: "pointer",
  respectReducedMotion: true,
  colors: {
    accent: flat(light.blueFill),
    danger: flat(light.redFill),
    // The colours from which Mantine builds its dark controls, in our own tones.
    dark: [
      dark.text,
      "#c3cad2",
      dark.muted,
      dark.faint,
      dark.lineStrong,
      "#2b3138",
      dark.raised,
      dark.surface,
      dark.sunken,
      dark.ground,
    ],
  },
  primaryColor: "accent",
  primaryShade: 5,
  components: {
    Button: Button.extend({
      defaultProps: { size: "xs", variant: "default", component: BusyButton },
      vars: () => ({ root: { "--button-height": "28px", "--button-padding-x": "10px" } }),
    }),
    ActionIcon: ActionIcon.extend({
      defaultProps: { variant: "subtle", color: "gray" },
      vars: () => ({ root: { "--ai-size": "26px" } }),
    }),
    InputWrapper: Input.Wrapper.extend({
      vars: () => ({
        label: { "--input-label-size": "13px" },
        description: { "--input-description-size": "12px" },
        error: { "--input-error-size": "12px" },
        success: {},
      }),
    }),
    TextInput: TextInput.extend({ defaultProps: { size: "xs" } }),
    PasswordInput: PasswordInput.extend({ defaultProps: { size: "xs" } }),
    Textarea: Textarea.extend({ defaultProps: { size: "xs" } }),
    Select: Select.extend({
      defaultProps: {
        size: "xs",
        comboboxProps: { transitionProps: { duration: 80 } },
        checkIconPosition: "right",
      },
    }),
    SegmentedControl: SegmentedControl.extend({ defaultProps: { size: "xs", transitionDuration: 100 } }),
    Switch: Switch.extend({ defaultProps: { size: "xs" } }),
    Checkbox: Checkbox.extend({ defaultProps: { size: "xs" } }),
    Tooltip: Tooltip.extend({
      defaultProps: {
        openDelay: 250,
        transitionProps: { duration: 80 },
        withArrow: false,
        multiline: true,
        maw: 420,
      },
    }),
    Menu: Menu.extend({ defaultProps: { transitionProps: { duration: 80 }, shadow: "md" } }),
    Popover: Popover.extend({
      defaultProps: {
        transitionProps: { duration: 80 },
        shadow: "md",
        // A form that is taller than its place scrolls: it neither leaves the window nor covers the notices.
        middlewares: {
          flip: true,
          shift: true,
          size: {
            padding: 8,
            apply({ availableHeight, elements, placement }) {
              const below = placement.startsWith("top") ? "0px" : `var(${NOTICES_HEIGHT}, 0px)`;
              elements.floating.style.maxHeight = `max(160px, ${availableHeight}px - ${below})`;
            },
          },
        },
      },
      styles: { dropdown: { overflow: "auto" } },
    }),
    Modal: Modal.extend({
      defaultProps: {
        transitionProps: { duration: 100 },
        centered: true,
        overlayProps: { backgroundOpacity: 0.35 },
        closeButtonProps: { "aria-label": "Close" },
      },
    }),
    Notification: Notification.extend({
      defaultProps: { closeButtonProps: { "aria-label": "Close this notice" } },
    }),
  },
});

const kebab = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

function variables(palette: Palette): Record<`--${string}`, string> {
  const own = Object.fromEntries(
    Object.entries(palette).map(([name, value]) => [`--c-${kebab(name)}`, value]),
  );
  return {
    ...own,
    "--mantine-color-body": palette.surface,
    "--mantine-color-text": palette.text,
    "--mantine-color-bright": palette.text,
    "--mantine-color-dimmed": palette.muted,
    "--mantine-color-placeholder": palette.faint,
    "--mantine-color-error": palette.red,
    "--mantine-color-anchor": palette.blue,
    "--mantine-color-default": palette.raised,
    "--mantine-color-default-hover": palette.hover,
    "--mantine-color-default-color": palette.text,
    "--mantine-color-default-border": palette.lineStrong,
    "--mantine-color-disabled": palette.greySoft,
    "--mantine-color-disabled-color": palette.faint,
    "--mantine-color-gray-light-hover": palette.hover,
    "--mantine-color-gray-light-color": palette.muted,
    "--mantine-primary-color-filled": palette.blueFill,
    "--mantine-primary-color-filled-hover": palette.blue,
    "--mantine-color-accent-filled": palette.blueFill,
    "--mantine-color-accent-filled-hover": palette.blueFill,
    // Texts and soft grounds of the quiet variants.
    "--mantine-color-accent-text": palette.blue,
    "--mantine-color-accent-light-color": palette.blue,
    "--mantine-color-accent-light": palette.blueSoft,
    "--mantine-color-accent-light-hover": palette.selected,
    "--mantine-color-accent-outline": palette.blue,
    "--mantine-color-danger-text": palette.red,
    "--mantine-color-danger-light-color": palette.red,
    "--mantine-primary-color-light-color": palette.blue,
    "--mantine-color-danger-filled": palette.redFill,
    "--mantine-color-danger-filled-hover": palette.redFill,
    "--mantine-shadow-md": palette.shadow,
    "--mantine-shadow-xl": palette.shadow,
  };
}

export const cssVariablesResolver: CSSVariablesResolver = () => ({
  variables: {},
  light: variables(light),
  dark: variables(dark),
});

export type Tone = "red" | "amber" | "green" | "blue" | "violet" | "grey";
