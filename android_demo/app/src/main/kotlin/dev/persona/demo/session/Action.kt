package dev.persona.demo.session

/** What a person can ask for. */
sealed interface Action {
    data class Open(val tab: Tab) : Action

    /** Connect to the address in the field. */
    object Connect : Action

    /** Connect to the address that a link brought, or leave it. */
    data class Answer(val connect: Boolean) : Action

    object Disconnect : Action

    object UseShippedBundle : Action

    object Personalise : Action

    object ToggleAutomatic : Action

    object RollBack : Action

    object ForgetWindow : Action

    /** The pad: strokes are drawn in it. */
    object Draw : Action

    object NextSample : Action

    /** An item of the list: swiped to the end it is taken, to the start it is passed over. */
    data class Swipe(val item: Long) : Action

    data class ToggleProgram(val index: Int) : Action

    data class ChooseIterations(val count: Int) : Action

    data class ChooseCoolDown(val seconds: Int) : Action

    object Measure : Action

    object StopMeasuring : Action

    object Share : Action

    object Upload : Action

    object KeepAsBaseline : Action
}

/** The app's three screens. */
enum class Tab {
    PERSONALISE,
    MEASURE,
    INSPECT,
}
